"""From a call's captured packets to its recording and its quality. Pure and CPU-bound: runs in a worker process.

What rtpengine 10.5 was seen to do (`--recording-method=pcap --recording-format=eth`, no kernel module):
the capture holds the RTP and RTCP packets that it *received*, decrypted, each with made-up Ethernet and IP headers
whose source is the sender and whose destination is rtpengine's own port of that leg; the port tells the legs apart.
"""

from voxpria_edge.media.process import CaptureJob, MediaResult, Sound, advance, process

__all__ = ["CaptureJob", "MediaResult", "Sound", "advance", "process"]
