"""The dual-space graph: patches joined by feature distance and by physical distance."""

from ppd_env.graph.distances import feature_distance, pairwise_distance, physical_distance
from ppd_env.graph.edges import NEIGHBOURS, knn_edges

__all__ = ["NEIGHBOURS", "feature_distance", "knn_edges", "pairwise_distance", "physical_distance"]
