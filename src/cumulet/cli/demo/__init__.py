"""`cumulet demo`: the main job, told step by step, by a client that knows nothing but the HTTP API."""
