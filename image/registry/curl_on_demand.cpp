#include "image/registry/curl_on_demand.h"

#include <cstdarg>

#include <dlfcn.h>

#define CURL_DISABLE_TYPECHECK  // it makes macros of what is defined here
#include <curl/curl.h>

namespace {

constexpr const char* library_name = "libcurl.so.4";

/// Null where there is none. Never closed: it may have left handlers of the process's end behind.
void* library() {
  static void* const loaded = ::dlopen(library_name, RTLD_NOW | RTLD_LOCAL);
  return loaded;
}

template <typename Function>
Function* of_library(const char* name) {
  return reinterpret_cast<Function*>(::dlsym(library(), name));
}

/// The library's own function of that name.
#define IN_LIBRARY(function)                                             \
  ([] {                                                                  \
    static const auto found = of_library<decltype(function)>(#function); \
    return found;                                                        \
  }())

/// Later releases of the library promise not to change the URL that they read.
template <typename Code, typename Url, typename... Others>
Url first_parameter_of(Code (*)(Url, Others...));
using UrlToRead = decltype(first_parameter_of(&::curl_url_get));

}  // namespace

namespace image::registry {

base::Result<> load_curl() {
  static const bool ready =
      library() != nullptr && IN_LIBRARY(curl_global_init)(CURL_GLOBAL_DEFAULT) == CURLE_OK;
  if (!ready)
    return base::fail(base::ErrorCode::Internal,
                      "{} cannot be loaded; install the package libcurl4 again", library_name);
  return {};
}

}  // namespace image::registry

void curl_free(void* memory) { IN_LIBRARY(curl_free)(memory); }
time_t curl_getdate(const char* text, const time_t* unused) {
  return IN_LIBRARY(curl_getdate)(text, unused);
}

// All that options take (long, curl_off_t, pointers) is passed as a pointer is on 64-bit systems.
static_assert(sizeof(void*) == sizeof(long) && sizeof(void*) == sizeof(curl_off_t));

CURL* curl_easy_init() { return IN_LIBRARY(curl_easy_init)(); }
void curl_easy_cleanup(CURL* easy) { IN_LIBRARY(curl_easy_cleanup)(easy); }
CURLcode curl_easy_pause(CURL* easy, int what) { return IN_LIBRARY(curl_easy_pause)(easy, what); }
CURLcode curl_easy_perform(CURL* easy) { return IN_LIBRARY(curl_easy_perform)(easy); }
const char* curl_easy_strerror(CURLcode code) { return IN_LIBRARY(curl_easy_strerror)(code); }
CURLcode curl_easy_setopt(CURL* easy, CURLoption option, ...) {
  std::va_list more;
  va_start(more, option);
  const CURLcode code = IN_LIBRARY(curl_easy_setopt)(easy, option, va_arg(more, void*));
  va_end(more);
  return code;
}
CURLcode curl_easy_getinfo(CURL* easy, CURLINFO info, ...) {
  std::va_list more;
  va_start(more, info);
  const CURLcode code = IN_LIBRARY(curl_easy_getinfo)(easy, info, va_arg(more, void*));
  va_end(more);
  return code;
}

CURLM* curl_multi_init() { return IN_LIBRARY(curl_multi_init)(); }
CURLMcode curl_multi_cleanup(CURLM* multi) { return IN_LIBRARY(curl_multi_cleanup)(multi); }
CURLMcode curl_multi_add_handle(CURLM* multi, CURL* easy) {
  return IN_LIBRARY(curl_multi_add_handle)(multi, easy);
}
CURLMcode curl_multi_remove_handle(CURLM* multi, CURL* easy) {
  return IN_LIBRARY(curl_multi_remove_handle)(multi, easy);
}
CURLMsg* curl_multi_info_read(CURLM* multi, int* left) {
  return IN_LIBRARY(curl_multi_info_read)(multi, left);
}
CURLMcode curl_multi_setopt(CURLM* multi, CURLMoption option, ...) {
  std::va_list more;
  va_start(more, option);
  const CURLMcode code = IN_LIBRARY(curl_multi_setopt)(multi, option, va_arg(more, void*));
  va_end(more);
  return code;
}
CURLMcode curl_multi_socket_action(CURLM* multi, curl_socket_t socket, int events, int* running) {
  return IN_LIBRARY(curl_multi_socket_action)(multi, socket, events, running);
}
const char* curl_multi_strerror(CURLMcode code) { return IN_LIBRARY(curl_multi_strerror)(code); }

curl_slist* curl_slist_append(curl_slist* list, const char* text) {
  return IN_LIBRARY(curl_slist_append)(list, text);
}
void curl_slist_free_all(curl_slist* list) { IN_LIBRARY(curl_slist_free_all)(list); }

CURLU* curl_url() { return IN_LIBRARY(curl_url)(); }
void curl_url_cleanup(CURLU* url) { IN_LIBRARY(curl_url_cleanup)(url); }
CURLUcode curl_url_get(UrlToRead url, CURLUPart what, char** part, unsigned int flags) {
  return IN_LIBRARY(curl_url_get)(url, what, part, flags);
}
CURLUcode curl_url_set(CURLU* url, CURLUPart what, const char* part, unsigned int flags) {
  return IN_LIBRARY(curl_url_set)(url, what, part, flags);
}
