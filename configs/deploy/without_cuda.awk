# Prints a lock file without torch, torchvision, and what only a GPU needs. nvidia-ml-py stays: BentoML imports it.
/^[a-zA-Z0-9]/ { left_out = /^(torch|torchvision|triton|cuda-[a-z]+|nvidia-[a-z0-9-]+)==/ && !/^nvidia-ml-py==/ }
!left_out
