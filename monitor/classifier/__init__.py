"""Text in, topic and sentiment out."""
