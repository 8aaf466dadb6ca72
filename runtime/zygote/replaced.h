#pragma once
/// What a zygote's QEMU (zygote.h) asks of other libraries and gets done differently, so that it
/// can be forked. Names are taken from the C library and libseccomp; see replaced.cpp.

#include <cstdint>
#include <vector>

#include "base/result.h"

namespace runtime {

/// A part of the image disk that is another file's content, from its beginning.
struct JoinedPart {
  uint64_t first_byte = 0;
  uint64_t bytes = 0;
  int descriptor = -1;
};

/// From here on this process is a zygote.
void begin_to_replace();
/// The image disk is what `disk` is open on, with these parts of it replaced, sorted by
/// place. Closes those of an earlier call.
void join_image(int disk, std::vector<JoinedPart> parts);
/// Puts the filter of system calls on that QEMU asked for, which a zygote only remembers.
base::Result<> enter_sandbox();
/// Offloads and header length as QEMU set them on `tap`, also on `other`.
base::Result<> settings_like(int tap, int other);

}  // namespace runtime
