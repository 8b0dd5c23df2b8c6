"""Projects, keys, datasets, runs, models, endpoints: services over the store, their REST API, and the jobs."""
