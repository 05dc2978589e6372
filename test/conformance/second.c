/*
 * The second process of a sequence: makes the system calls that it is sent and answers what came
 * of them. The conformance run compiles it; a process forks from it for each sequence, with what
 * memory it has by then.
 *
 *   second SOCKET    an abstract Unix socket, without the NUL that its address begins with
 *
 * A packet is a struct packet, and as many of its bytes as it says; the answer is one as well.
 */

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

/* What else can be asked for. */
enum {
  BUFFER = -1,  /* where the bytes of a packet are */
  RECEIVE = -2, /* the number of the fd that came with the packet */
  SEND = -3,    /* the fd goes with the answer */
  FORK = -4,    /* the child connects on its own; its pid */
  END = -5,     /* SIGKILL for a child, and its end */
};

static struct packet {
  int64_t number; /* of the system call; in the answer what it returned, or -errno */
  int64_t arguments[6];
  int64_t length;
  unsigned char bytes[16384];
} packet;

static const char *name;

static int connected(void)
{
  struct sockaddr_un address = { .sun_family = AF_UNIX };
  int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  size_t length = strlen(name);

  if (fd < 0 || length >= sizeof address.sun_path) _exit(1);
  memcpy(address.sun_path + 1, name, length);
  if (connect(fd, (struct sockaddr *)&address, offsetof(struct sockaddr_un, sun_path) + 1 + length))
    _exit(1);
  return fd;
}

/* One packet, with the fd that goes with it or -1. */
static ssize_t transfer(int socket, int *fd, ssize_t length)
{
  union { struct cmsghdr header; char room[CMSG_SPACE(sizeof *fd)]; } control = { 0 };
  struct iovec bytes = { &packet, length < 0 ? sizeof packet : (size_t)length };
  struct msghdr message = {
    .msg_iov = &bytes, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control,
  };
  struct cmsghdr *header = &control.header;

  if (length < 0) {
    ssize_t got = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
    *fd = -1;
    if (got > 0 && message.msg_controllen >= sizeof *header)
      memcpy(fd, CMSG_DATA(header), sizeof *fd);
    return got;
  }
  if (*fd < 0) {
    message.msg_control = NULL;
    message.msg_controllen = 0;
  } else {
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof *fd);
    memcpy(CMSG_DATA(header), fd, sizeof *fd);
  }
  return sendmsg(socket, &message, MSG_NOSIGNAL);
}

int main(int count, char **words)
{
  int socket, passed;

  if (count != 2) return 1;
  name = words[1];
  socket = connected();
  while (transfer(socket, &passed, -1) > 0) {
    int64_t *with = packet.arguments;
    int sent = -1;

    switch (packet.number) {
    case BUFFER: packet.number = (int64_t)(uintptr_t)packet.bytes; break;
    case RECEIVE: packet.number = passed; break;
    case SEND: sent = (int)with[0]; packet.number = 0; break;
    case FORK:
      packet.number = fork();
      if (packet.number == 0) {
        close(socket);
        socket = connected();
        continue;
      }
      break;
    case END:
      kill((pid_t)with[0], SIGKILL);
      packet.number = waitpid((pid_t)with[0], NULL, 0);
      break;
    default:
      packet.number = syscall(packet.number, with[0], with[1], with[2], with[3], with[4], with[5]);
      if (packet.number == -1) packet.number = -errno;
    }
    transfer(socket, &sent, (ssize_t)(offsetof(struct packet, bytes) + packet.length));
  }
  return 0;
}
