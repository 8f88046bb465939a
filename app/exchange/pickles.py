"""Recognise Python pickles, which are refused without being opened: reading one can run any program."""

_ZIP = b"PK\x03\x04"
_PROTOCOL = 0x80  # The first opcode of a pickle; the number of its protocol follows.
_FIRST_PROTOCOL, _LAST_PROTOCOL = 2, 5
_ZLIB = (b"\x78\x01", b"\x78\x9c", b"\x78\xda", b"ZF")  # joblib compresses pickles.

REFUSED = (
    "The file is a Python pickle, as torch.save, joblib and pickle write it. Reading one can run any program, so it is "
    "not opened. Save a PyTorch layer with safetensors.torch.save_file(layer.state_dict(), FILE), or send the model "
    "with the Python client: Client().import_model(ESTIMATOR, MODEL)."
)


def is_pickle(content: bytes) -> bool:
    """Return True if the content is a pickle, or an archive of torch.save or joblib that has one."""
    if content.startswith(_ZIP):
        return b".pkl" in content[:4096] or b"data.pkl" in content[-65536:]
    if len(content) > 1 and content[0] == _PROTOCOL:
        return _FIRST_PROTOCOL <= content[1] <= _LAST_PROTOCOL
    return content.startswith(_ZLIB)
