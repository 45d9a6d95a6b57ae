class Progress:
    def __init__(self,*a,**k): pass
    def update(self,*a,**k): pass
    def close(self,*a,**k): pass
