"""What a task is, and the literal dict TASKS of all of them."""
