# The base of the images, from the archive of base.sh. Its own command only waits: a container of it keeps what others join.
FROM scratch
ADD base.tar /
CMD ["sleep", "infinity"]
