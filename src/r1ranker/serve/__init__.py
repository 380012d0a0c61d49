"""The HTTP server: schemas (what is asked and answered), guard (what is refused unread),
batching (what waits is ranked together), metrics (what is counted), app (the routes).
"""
