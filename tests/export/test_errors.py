from keras_bn.export.errors import LONGEST_DETAIL, one_line


def test_error_of_another_library_is_one_plain_line():
    error = ValueError("\x1b[1mLayer 'a' failed.\x1b[0m\n\n  Arguments:\n\t* x")
    assert one_line(error) == "ValueError: Layer 'a' failed. Arguments: * x"


def test_its_length_is_bounded():
    assert len(one_line(ValueError("a" * 1000))) == LONGEST_DETAIL
