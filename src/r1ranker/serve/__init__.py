"""The HTTP server: schemas (what is asked and answered), batching (what waits is ranked together), app (the routes)."""
