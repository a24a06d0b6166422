"""Other methods that learn to defend, on the same games; one folder each."""
