"""The embedded competition: people that no one filmed, in the files of the real one.

bodies      one parametric body: bones, a smooth surface, its skin weights     surfaces    distance fields, meshed
poses       joint angles of the 15 actions over time                           skeletons   angles to joints and frames
cameras     the four cameras and the crop                                      scenes      rooms, furniture, clothes, light
render      a z-buffer and its shading                                         generate    the folder
"""
