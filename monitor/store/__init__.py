"""What must survive a crash: positions, counts, stories, incidents, the outbox and the dead letters, in one SQL database."""
