"""What the source formats of one framework share; imported only inside the step that uses it."""
