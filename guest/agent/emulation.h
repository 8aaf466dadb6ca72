#pragma once
/// Programs of other processors run by user-mode emulation: the kernel hands them to an emulator
/// that came with the image disk (binfmt_misc).

#include <string>

#include "base/result.h"
#include "guest/protocol/protocol.h"

namespace agent {

/// What the kernel is told to recognise programs of `architecture` (as in OCI images: `arm64`) by
/// their ELF header, and to run them by `interpreter`. Empty for one we do not know.
std::string emulator_registration(const std::string& architecture, const std::string& interpreter);

/// Before the first process: takes the emulator out of its partition and registers it.
base::Result<> set_up_emulation(const guest::Emulator& emulator, const std::string& image_disk);

}  // namespace agent
