"""The sandbox's HTTP: place calls, look at them, receive webhooks, and the fakes of providers' REST APIs."""
