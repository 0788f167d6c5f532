"""From a call's captured packets to its recording and its quality: pure and CPU-bound, so `worker` runs it apart.

What rtpengine 10.5 was seen to do (`--recording-method=pcap --recording-format=eth`, no kernel module):
the capture holds the RTP and RTCP packets that it *received*, decrypted, each with made-up Ethernet and IP headers
whose source is the sender and whose destination is rtpengine's own port of that leg; the port tells the legs apart.
"""
