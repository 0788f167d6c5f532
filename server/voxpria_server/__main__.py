"""The API process: `python -m voxpria_server`."""

import gc

gc.disable()  # what is imported stays: to look through it for garbage, again and again, is a tenth of the start

from voxpria_server.main import main  # noqa: E402

gc.freeze()  # nor is it looked through later, while requests wait
gc.enable()
gc.set_threshold(20_000, 20)  # a request leaves hardly anything that it takes a search to find
main()
