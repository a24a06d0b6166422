"""How fast this machine plays: what ``ppd bench`` measures."""
