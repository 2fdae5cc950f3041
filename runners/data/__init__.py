"""Data sets: images and texts resident on their device, read from files, downloaded, or drawn.

from runners import data

mnist = data.mnist()
stream = mnist.train.batches(128)
batch = next(stream)
"""

from runners.data.binarized_files import fixed_binarized_mnist
from runners.data.corpora import corpus
from runners.data.data_set import BINARISATIONS, DataSet, binarized
from runners.data.drawn_digits import drawn_digits
from runners.data.image_files import image_folder
from runners.data.images import Images, head
from runners.data.mnist_files import default_root, fashion_mnist, mnist
from runners.data.sources import NAMES, is_image_folder, load
from runners.data.stream import Stream
from runners.data.text import Text, TextStream

__all__ = [
    "BINARISATIONS",
    "NAMES",
    "DataSet",
    "Images",
    "Stream",
    "Text",
    "TextStream",
    "binarized",
    "corpus",
    "default_root",
    "drawn_digits",
    "fashion_mnist",
    "fixed_binarized_mnist",
    "head",
    "image_folder",
    "is_image_folder",
    "load",
    "mnist",
]
