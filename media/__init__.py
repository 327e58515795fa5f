"""RTP, SRTP, codecs, WAV files, and the engine that plays and captures. Real UDP, 20 ms packets."""
