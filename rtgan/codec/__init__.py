"""The codec, for speech and for music: packets for networks, files that stream and seek, and models between them.

`Encoder` and `Decoder` turn speech into codes and codes into sound, `bits` turns codes into bytes and back, `packets`
and `receiver` are for networks, `container` is for files; `music` is for music what the first three are for speech.
"""

from rtgan.codec.container import Reader, Writer
from rtgan.codec.model import Decoder, Encoder, Model, load
from rtgan.codec.packets import Packet, Sender
from rtgan.codec.receiver import Receiver

__all__ = ["Decoder", "Encoder", "Model", "Packet", "Reader", "Receiver", "Sender", "Writer", "load"]
