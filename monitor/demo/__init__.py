"""A day of invented news, replayed at speed, to see the whole system work without Kafka or a network."""
