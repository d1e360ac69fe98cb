"""mmsegmentation's networks: compositions of backbones and heads with its options, and the backbones only it has."""
