"""What every test may ask for."""

from tests.kafka.fixtures import fresh_kafka, kafka, local_kafka, pytest_terminal_summary

__all__ = ["fresh_kafka", "kafka", "local_kafka", "pytest_terminal_summary"]
