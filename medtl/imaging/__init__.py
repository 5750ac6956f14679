"""Bytes of an image file to pixels: pictures and DICOM."""
