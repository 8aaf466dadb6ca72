/* What busybox lacks, for the tests of build steps: extended attributes and unix sockets.
 *
 *   build-probe set PATH NAME VALUE     sets an extended attribute
 *   build-probe ask SOCKET TEXT         sends the text, prints what comes back until the end
 */
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/xattr.h>
#include <unistd.h>

static int set(const char* path, const char* name, const char* value) {
  if (lsetxattr(path, name, value, strlen(value), 0) == 0) return 0;
  perror(path);
  return 1;
}

static int ask(const char* path, const char* text) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  char buffer[4096];
  ssize_t count;
  const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  strncpy(address.sun_path, path, sizeof address.sun_path - 1);
  if (fd < 0 || connect(fd, (struct sockaddr*)&address, sizeof address) != 0) {
    perror(path);
    return 1;
  }
  if (write(fd, text, strlen(text)) < 0) return 1;
  shutdown(fd, SHUT_WR);
  while ((count = read(fd, buffer, sizeof buffer)) > 0)
    if (write(1, buffer, (size_t)count) != count) return 1;
  return count < 0;
}

int main(int argc, char** argv) {
  if (argc == 5 && strcmp(argv[1], "set") == 0) return set(argv[2], argv[3], argv[4]);
  if (argc == 4 && strcmp(argv[1], "ask") == 0) return ask(argv[2], argv[3]);
  return 2;
}
