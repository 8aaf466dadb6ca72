#pragma once
/// libuv with ownership: a handle is a unique_ptr whose deleter is uv_close, because libuv owns
/// the bytes until the close callback has run.

#include <memory>
#include <utility>

#include <uv.h>

#include "base/result.h"

namespace base {

template <class T>
struct UvClose {
  void operator()(T* handle) const noexcept {
    handle->data = nullptr;  // late callbacks find nobody home
    uv_close(reinterpret_cast<uv_handle_t*>(handle),
             [](uv_handle_t* closed) { delete reinterpret_cast<T*>(closed); });
  }
};
template <class T>
using UvHandle = std::unique_ptr<T, UvClose<T>>;

/// Runs `init` on a new handle; if it fails the handle is freed, since it must not be closed.
/// Not for uv_spawn(): that one must be closed either way, and only after its exit callback.
template <class T, class Init>
Result<UvHandle<T>> make_handle(Init&& init) {
  auto cell = std::make_unique<T>();
  if (const int status = std::forward<Init>(init)(cell.get()); status < 0)
    return fail(ErrorCode::Io, "libuv: {}", uv_strerror(status));
  return UvHandle<T>(cell.release());
}

}  // namespace base
