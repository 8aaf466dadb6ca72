/// libcurl for programs that are not linked with it: <curl/curl.h> declares its functions as ever,
/// and the library is loaded when one of them is first called. Debian's brings twenty others with
/// it (Kerberos, LDAP, SSH, …), 1.5 MB that a daemon which speaks to no registry would hold for
/// nothing. A function that we begin to use needs its line in the source file.
#pragma once

#include "base/result.h"

namespace image::registry {

/// To be called before any function of it, as often as one likes. ErrorCode::Internal where there
/// is none to load.
base::Result<> load_curl();

}  // namespace image::registry
