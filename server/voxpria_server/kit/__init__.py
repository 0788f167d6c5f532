"""What any service needs and none of telephony: database, jobs, ids, time, pages, sealing, logs."""
