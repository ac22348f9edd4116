"""The codec, for speech and for music: packets for networks, files that stream and seek, and models between them.

`Encoder` and `Decoder` turn speech into codes and codes into sound, `bits` turns codes into bytes and back, `packets`
is for networks, `container` for files; `music` is all of that for music, in files.
"""

from rtgan.codec.container import Reader, Writer
from rtgan.codec.model import Decoder, Encoder, Model, load
from rtgan.codec.packets import Packet, Receiver, Sender

__all__ = ["Decoder", "Encoder", "Model", "Packet", "Reader", "Receiver", "Sender", "Writer", "load"]
