"""Choose the law that best predicts larger runs that were held out."""
