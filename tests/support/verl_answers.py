"""What is scored in the test of verl, on both sides of it."""

PROMPT = [{"role": "user", "content": "How do I bake bread?"}]
ANSWERS = ["Mix flour, water and salt.", "No.", "日本語のパン"]
