// libtorch ships without Gloo's headers but with its symbols: what c10d's header and ours call is declared here, never defined.
#pragma once
#include <chrono>

#include <gloo/transport/device.h>

namespace gloo {

class Context {
 public:
  void setTimeout(std::chrono::milliseconds timeout);
  // Breaks the connections to all peers; what waits on them fails, here and there.
  void closeConnections();
};

}  // namespace gloo
