// libtorch ships without Gloo's headers; nothing of this one is needed.
#pragma once
