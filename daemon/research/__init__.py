"""A request to a plan of jobs, jobs to workers, results to the store; views, exports and reports of them."""
