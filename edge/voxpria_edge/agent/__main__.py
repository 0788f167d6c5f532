"""The agent's process. What it starts for captures finds nothing here that it would have to import."""

import gc

gc.disable()  # what is imported stays: to look through it for garbage, again and again, is a tenth of the start

from voxpria_edge.agent.wiring import main  # noqa: E402

gc.freeze()  # nor is it looked through later, while calls wait
gc.enable()
main()
