"""The speech codec: packets for networks, files that stream and seek, and the model between them.

`Encoder` and `Decoder` turn sound into codes and codes into sound, `bits` turns codes into bytes and back, `packets`
is for networks, `container` for files.
"""

from rtgan.codec.container import Reader, Writer
from rtgan.codec.model import Decoder, Encoder, Model, load
from rtgan.codec.packets import Packet, Receiver, Sender

__all__ = ["Decoder", "Encoder", "Model", "Packet", "Reader", "Receiver", "Sender", "Writer", "load"]
