"""Amazon's modules, imported in one place, because they warn when they are imported, and warnings are errors here."""

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import sagemaker
    from sagemaker.amazon import common, record_pb2
    from sagemaker_inference import content_types, decoder, encoder

__all__ = ["common", "content_types", "decoder", "encoder", "record_pb2", "sagemaker"]
