"""The panel: a local web page that shows what plays and turns it, served by a process of its own.

`link` is the host's end, `server` the panel's process; between them goes one socket with lines of JSON and one piece
of shared memory that the audio thread writes sound into. `commands` says once what may be asked for; pages, shell
and HTTP all ask for just that.
"""
