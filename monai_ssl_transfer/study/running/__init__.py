"""The runs of a study: data, pretrainings and cells, each one a job that is whole or not there."""
