"""The networks of the paper, as plain modules; ``vbd.Classifier(net, prior, num_data)`` makes a Pyro model of one."""

from models.convnet import convnet as convnet
from models.lenet import lenet_5_caffe as lenet_5_caffe
from models.lenet import lenet_300_100 as lenet_300_100
from models.lenet import lenet_500_300 as lenet_500_300
from models.mlp import mlp as mlp
from models.resnet import resnet as resnet

__all__ = ["convnet", "lenet_5_caffe", "lenet_300_100", "lenet_500_300", "mlp", "resnet"]
