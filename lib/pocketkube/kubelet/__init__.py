"""The kubelet: turns the Pods bound to a node into processes, and reports what became of them."""

from .kubelet import Kubelet

__all__ = ["Kubelet"]
