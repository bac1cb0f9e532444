"""What the pipeline is built with: plain Python that assets, notebooks and tests share."""
