"""The web demo: one page on which prompts are clicked, attacked and defended; ``ppd serve`` starts it."""
