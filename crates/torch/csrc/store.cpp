// The key-value store through which ranks find each other: c10d's TCPStore behind a C interface.
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include "border.h"

using StorePtr = c10::intrusive_ptr<c10d::Store>;

namespace {

std::chrono::milliseconds milliseconds(int64_t count) { return std::chrono::milliseconds(count); }

}  // namespace

extern "C" {

// Connects to a store, or serves one on a port (0 takes a free one) and connects to it; `port` gets where it is.
char* joust_store_open(const char* host, uint16_t* port, bool serve, int64_t timeout_ms, void** out) {
  return joust::guarded([&] {
    c10d::TCPStoreOptions options;
    options.port = *port;
    options.isServer = serve;
    options.waitWorkers = false;
    options.timeout = milliseconds(timeout_ms);
    auto store = c10::make_intrusive<c10d::TCPStore>(host, options);
    *port = store->getPort();
    *out = new StorePtr(std::move(store));
  });
}

void joust_store_free(void* store) { delete static_cast<StorePtr*>(store); }

char* joust_store_set(void* store, const char* key, const uint8_t* value, int64_t length) {
  return joust::guarded([&] { (*static_cast<StorePtr*>(store))->set(key, std::vector<uint8_t>(value, value + length)); });
}

// Sets `present`; never waits.
char* joust_store_check(void* store, const char* key, bool* present) {
  return joust::guarded([&] { *present = (*static_cast<StorePtr*>(store))->check({key}); });
}

// Gives a value that is there to `take`.
char* joust_store_get(void* store, const char* key, void* into, void (*take)(void*, const uint8_t*, int64_t)) {
  return joust::guarded([&] {
    const auto value = (*static_cast<StorePtr*>(store))->get(key);
    take(into, value.data(), static_cast<int64_t>(value.size()));
  });
}

// Adds to a number, which begins as 0, and returns the sum: whoever gets it first is known to all.
char* joust_store_add(void* store, const char* key, int64_t by, int64_t* sum) {
  return joust::guarded([&] { *sum = (*static_cast<StorePtr*>(store))->add(key, by); });
}

}  // extern "C"
