"""Says when to speak, and speaks: rules, the life of an incident, messages, and their delivery."""
