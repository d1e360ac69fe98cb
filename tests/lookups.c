/* Preloaded into a program (LD_PRELOAD), writes a line to $LOOKUPS for everything that would reach another machine. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static void tell(const char *what, const char *where) {
    const char *path = getenv("LOOKUPS");
    char line[512];
    int size = snprintf(line, sizeof line, "%s %s\n", what, where ? where : "");
    int file = path ? open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600) : -1;
    if (file < 0) return;
    if (write(file, line, size < (int)sizeof line ? size : (int)sizeof line - 1) < 0) abort();
    close(file);
}

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **found) {
    (void)service, (void)hints, (void)found;
    tell("getaddrinfo", node);
    return EAI_FAIL;
}

struct hostent *gethostbyname(const char *name) {
    tell("gethostbyname", name);
    h_errno = NO_RECOVERY;
    return NULL;
}

struct hostent *gethostbyname2(const char *name, int family) {
    (void)family;
    return gethostbyname(name);
}

int gethostbyname_r(const char *name, struct hostent *entry, char *buffer, size_t size, struct hostent **found, int *error) {
    (void)entry, (void)buffer, (void)size;
    *found = gethostbyname(name);
    *error = NO_RECOVERY;
    return -1;
}

int gethostbyname2_r(const char *name, int family, struct hostent *entry, char *buffer, size_t size,
                     struct hostent **found, int *error) {
    (void)family;
    return gethostbyname_r(name, entry, buffer, size, found, error);
}

int res_query(const char *name, int class, int type, unsigned char *answer, int size) {
    (void)class, (void)type, (void)answer, (void)size;
    tell("res_query", name);
    return -1;
}

int __res_query(const char *name, int class, int type, unsigned char *answer, int size) {
    return res_query(name, class, type, answer, size);
}

static int is_remote(const struct sockaddr *address) {
    return address && (address->sa_family == AF_INET || address->sa_family == AF_INET6);
}

int connect(int handle, const struct sockaddr *address, socklen_t size) {
    static int (*real)(int, const struct sockaddr *, socklen_t);
    if (!real) real = (int (*)(int, const struct sockaddr *, socklen_t))dlsym(RTLD_NEXT, "connect");
    if (is_remote(address)) tell("connect", NULL);
    return real(handle, address, size);
}

ssize_t sendto(int handle, const void *data, size_t length, int flags, const struct sockaddr *address, socklen_t size) {
    static ssize_t (*real)(int, const void *, size_t, int, const struct sockaddr *, socklen_t);
    if (!real) real = (ssize_t(*)(int, const void *, size_t, int, const struct sockaddr *, socklen_t))dlsym(RTLD_NEXT, "sendto");
    if (is_remote(address)) tell("sendto", NULL);
    return real(handle, data, length, flags, address, size);
}
