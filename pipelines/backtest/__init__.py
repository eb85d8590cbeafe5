"""News of the past in, the incidents that the daemon would have opened out: never sent to anybody."""
